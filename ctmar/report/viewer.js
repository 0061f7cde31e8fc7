"use strict";
(() => {
  // Values of ctmar.report.encoding.
  const { step, lowest, levels } = JSON.parse(document.getElementById("scale").textContent);
  const NAMES = { before: "Before", after: "After", reference: "Reference", prior: "Prior", difference: "Difference" };
  const DIFFERENCE_HU = 400;
  const data = [...document.querySelectorAll(".slice-data")];
  const at = (id) => document.getElementById(id);
  const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
  const stage = at("stage"), cut = at("cut"), slider = at("slice"), level = at("level"), width = at("width"), zoom = at("zoom");

  // Slices are parsed and decoded when first shown, so that a long series opens at once; the last few are kept.
  const decoded = new Map();
  const KEPT = 8;

  function numbers(url) {
    return new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => {
        const canvas = document.createElement("canvas");
        canvas.width = image.naturalWidth;
        canvas.height = image.naturalHeight;
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
        const values = new Int16Array(canvas.width * canvas.height);
        for (let k = 0; k < values.length; k++) values[k] = pixels[4 * k] + 256 * pixels[4 * k + 1];
        resolve({ values, cols: canvas.width, rows: canvas.height });
      };
      image.onerror = () => reject(new Error("a picture of this report is damaged"));
      image.src = url;
    });
  }

  async function decode(k) {
    const { label, notes, aspect, focus, pictures } = JSON.parse(data[k].textContent);
    const { values: before, rows, cols } = await numbers(pictures.before);
    const images = { before };
    if (pictures.after) {
      const change = (await numbers(pictures.after)).values;
      images.after = before.map((value, n) => value + change[n] - levels);
      images.difference = images.after.map((value, n) => value - before[n]);
    } else {
      images.after = before;
      images.difference = new Int16Array(before.length);
    }
    for (const name of ["reference", "prior"]) {
      if (pictures[name]) images[name] = (await numbers(pictures[name])).values;
    }
    return { label, notes, aspect, focus, pictures, images, rows, cols };
  }

  function slice(k) {
    const found = decoded.get(k) || decode(k);
    decoded.delete(k);
    decoded.set(k, found);
    while (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
    return found;
  }

  function paint(canvas, values, rows, cols, isDifference) {
    canvas.width = cols;
    canvas.height = rows;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const image = context.createImageData(cols, rows);
    const pixels = new Uint32Array(image.data.buffer);
    const middle = isDifference ? 0 : (Number(level.value) - lowest) / step;
    const span = (isDifference ? DIFFERENCE_HU : Number(width.value)) / step;
    const first = isDifference ? -levels : 0;
    const greys = new Uint32Array(2 * levels);
    for (let k = 0; k < greys.length; k++) {
      const grey = Math.round(255 * Math.min(1, Math.max(0, (k + first - middle) / span + 0.5)));
      greys[k] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
    }
    for (let k = 0; k < values.length; k++) pixels[k] = greys[values[k] - first];
    context.putImageData(image, 0, 0);
  }

  let shown = null;
  let own = null; // where the reader wants to look, in percent from the left and from the top
  let latest = 0;
  async function show() {
    const request = ++latest;
    const k = slider ? Number(slider.value) : 0;
    const found = await slice(k);
    if (request !== latest) return; // another slice was asked for meanwhile
    shown = found;
    const { label, notes, aspect, pictures, images, rows, cols } = found;
    const wanted = chosen("pair").split(" ");
    stage.style.aspectRatio = aspect;
    ["left", "right"].forEach((side, n) => {
      const name = wanted[n] in images ? wanted[n] : "after";
      paint(at(side), images[name], rows, cols, name === "difference");
      const caption = name === wanted[n] ? NAMES[name] + (name === "difference" ? ` ±${DIFFERENCE_HU / 2} HU` : "") : `No ${wanted[n]} for this slice`;
      at(side).setAttribute("aria-label", `${caption}, ${label}`);
      at(`${side}-tag`).textContent = caption;
      at(side).dataset.image = name;
    });
    magnify();
    const outline = at("outline"), metal = at("metal");
    outline.hidden = !(metal && metal.checked && pictures.outline);
    if (!outline.hidden) outline.src = pictures.outline;
    if (at("sinogram-box")) {
      at("sinogram-box").hidden = !pictures.sinogram;
      at("no-sinogram").hidden = Boolean(pictures.sinogram);
      if (pictures.sinogram) {
        at("sinogram").src = pictures.sinogram;
        at("trace").src = pictures.trace;
        at("trace").hidden = !at("show-trace").checked;
      }
    }
    at("label").textContent = label;
    at("notes").textContent = notes;
    at("position").textContent = data.length > 1 ? `${k + 1} of ${data.length}` : "";
    at("level-value").textContent = `${level.value} HU`;
    at("width-value").textContent = `${width.value} HU`;
    if (slider) at("slice-value").textContent = `${k + 1} / ${data.length}`;
    const now = at("now");
    const spot = document.querySelector(`.hit[data-slice="${k}"]`);
    if (now) now.setAttribute("transform", `translate(${spot ? Number(spot.getAttribute("x")) + spot.getAttribute("width") / 2 : -9} 0)`);
  }

  function focus() {
    return own || (shown ? shown.focus : [50, 50]);
  }

  function magnify() {
    const [x, y] = focus();
    stage.style.setProperty("--zoom", zoom.value);
    stage.style.setProperty("--focus-x", `${x}%`);
    stage.style.setProperty("--focus-y", `${y}%`);
    at("zoom-value").textContent = `× ${zoom.value}`;
  }

  // A place of the picture, 0..1, of one of the stage, and back.
  function inPicture(part, axis) {
    const middle = focus()[axis] / 100;
    return middle + (part - middle) / zoom.value;
  }

  function divide() {
    stage.style.setProperty("--cut", `${cut.value}%`);
    at("cut-value").textContent = `${Math.round(cut.value)} %`;
  }

  function place(event) {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  function drag(event) {
    const [x, y] = place(event);
    if (event.buttons === 1) {
      cut.value = 100 * x;
      divide();
    }
    if (!shown || x < 0 || x >= 1 || y < 0 || y >= 1) return;
    const name = at(100 * x < cut.value ? "left" : "right").dataset.image;
    const row = Math.floor(inPicture(y, 1) * shown.rows), col = Math.floor(inPicture(x, 0) * shown.cols);
    const value = shown.images[name][row * shown.cols + col] * step;
    at("value").textContent = `${name === "difference" ? value : value + lowest} HU`;
  }

  function page(by) {
    if (!slider) return;
    slider.value = Number(slider.value) + by;
    show();
  }

  function preset(name) {
    const input = document.querySelector(`input[name=window][value=${name}]`);
    input.checked = true;
    if (name === "free") return;
    level.value = input.dataset.level;
    width.value = input.dataset.width;
  }

  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); drag(event); });
  stage.addEventListener("pointermove", drag);
  stage.addEventListener("pointerleave", () => { at("value").textContent = ""; });
  stage.addEventListener("wheel", (event) => {
    if (!slider || event.ctrlKey) return;
    event.preventDefault();
    page(Math.sign(event.deltaY));
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => {
    const [x, y] = place(event);
    own = [100 * inPicture(x, 0), 100 * inPicture(y, 1)];
    zoom.value = Number(zoom.value) >= 8 ? 1 : Math.max(2, 2 * zoom.value);
    magnify();
  });
  stage.addEventListener("keydown", (event) => {
    const presets = [...document.querySelectorAll("input[name=window]")];
    const keys = {
      ArrowLeft: () => { cut.value = Number(cut.value) - 2; divide(); },
      ArrowRight: () => { cut.value = Number(cut.value) + 2; divide(); },
      "+": () => { zoom.value = Number(zoom.value) + 1; magnify(); },
      "-": () => { zoom.value = Number(zoom.value) - 1; magnify(); },
      ArrowUp: () => page(-1), ArrowDown: () => page(1), PageUp: () => page(-10), PageDown: () => page(10),
    };
    const number = Number(event.key);
    if (event.key in keys) keys[event.key]();
    else if (number >= 1 && number <= presets.length) { preset(presets[number - 1].value); show(); }
    else return;
    event.preventDefault();
  });
  at("viewer").addEventListener("input", (event) => {
    if (event.target === cut) return divide();
    if (event.target === zoom) return magnify();
    if (event.target.name === "window") preset(event.target.value);
    if (event.target === level || event.target === width) preset("free");
    show();
  });
  if (at("show-trace")) at("show-trace").addEventListener("input", show);
  document.querySelectorAll("[data-slice]").forEach((spot) => spot.addEventListener("click", () => {
    if (slider) slider.value = spot.dataset.slice;
    show();
    at("viewer").scrollIntoView({ block: "nearest" });
  }));
  divide();
  show();
})();
