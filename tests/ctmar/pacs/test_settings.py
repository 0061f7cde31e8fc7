"""serve.toml: who, what and where; and what cannot be meant."""

import pytest

from ctmar.errors import UsageError
from ctmar.pacs.settings import read_settings

GOOD = """
spool = "spool"
[[peers]]
ae_title = "CT SCANNER 1"
hosts = ["10.0.0.5"]
[[destinations]]
ae_title = "PACS"
host = "pacs.example"
port = 104
[[destinations]]
ae_title = "TPS"
host = "tps.example"
port = 11112
[[rules]]
protocol = "*lung*"
action = "ignore"
[[rules]]
station = "CT[12]"
description = "*hip*"
method = "nmar2"
preset = "hip"
strength = 0.5
to = ["TPS"]
"""


@pytest.fixture
def read(tmp_path):
    def _read(text):
        (tmp_path / "serve.toml").write_text(text)
        return read_settings(tmp_path / "serve.toml")

    return _read


def test_the_first_rule_that_matches(read):
    settings = read(GOOD)
    rule = settings.rule_for("CT1 ", "Left HIP", "")
    assert rule.correction("cpu").method == "nmar2"
    assert rule.correction("cpu").strength == 0.5
    assert rule.correction("cpu").preset == "hip"
    assert [one.ae_title for one in settings.destinations_of(rule)] == ["TPS"]
    assert settings.rule_for("CT1", "hip", "Lung").action == "ignore"
    assert settings.rule_for("CT3", "hip", "") is None


def test_addresses_and_networks(read):
    (peer,) = read(GOOD.replace('"10.0.0.5"', '"10.0.0.5", "192.0.2.0/24"')).peers
    assert peer.may_come_from("10.0.0.5")
    assert peer.may_come_from("192.0.2.77")
    assert not peer.may_come_from("10.0.0.6")


def test_without_rules_everything_is_corrected_and_goes_everywhere(read):
    settings = read(GOOD[: GOOD.index("[[rules]]")])
    rule = settings.rule_for("", "", "")
    assert (rule.action, rule.correction("cpu").method) == ("correct", "cnn-mar")
    assert len(settings.destinations_of(rule)) == 2
    assert settings.address == "127.0.0.1"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (GOOD.replace('"CT SCANNER 1"', '"A TITLE OF MANY LETTERS"'), "AE title"),
        (GOOD.replace('"CT SCANNER 1"', '" "'), "AE title"),
        (GOOD.replace("port = 104", "port = 0"), "port"),
        (GOOD.replace("[[peers]]", "[[peer]]"), "did you mean"),
        (GOOD[GOOD.index("[[dest") :], "spool"),
        ('spool = "x"' + GOOD[GOOD.index("[[dest") - 1 :], "who may send"),
        (GOOD[: GOOD.index("[[dest")], "where corrected series go"),
        (GOOD.replace('"TPS"]', '"ELSEWHERE"]'), "no destination"),
        (GOOD.replace('"nmar2"', '"nmar9"'), "nmar9"),
        (GOOD.replace('preset = "hip"', 'preset = "knee"'), "knee"),
        (GOOD.replace("strength = 0.5", "strength = 5.0"), "strength"),
        (GOOD.replace("port = 104", "port = 104\ntls = true"), "TLS"),
        ("quiet_s = -1\n" + GOOD, "quiet_s"),
        (GOOD + '[tls]\ncertificate = "none.pem"\nkey = "none.pem"\n', "is not there"),
        (GOOD.replace("10.0.0.5", "scanner.local"), "no IP address"),
        ("port = 9112\nmonitor_port = 9112\n" + GOOD, "the same"),
        ('port = 104\naddress = "pacs.example"\n' + GOOD, "itself"),
        ("spool = ", "TOML"),
    ],
)
def test_what_cannot_be_meant(read, wrong, words):
    with pytest.raises(UsageError, match=words):
        read(wrong)
