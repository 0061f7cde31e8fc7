"""HTML reports and preview pictures: they show results and decide nothing."""

from ctmar.report.html import render_report
from ctmar.report.pictures import WINDOWS, SlicePreview, Window, before_after_sheet, picture_png

__all__ = ["WINDOWS", "SlicePreview", "Window", "before_after_sheet", "picture_png", "render_report"]
