// A card in a notebook: the page in a frame of its own, which may run its scripts and save files, and reach nothing.
export default {
  render({ model, el }) {
    const frame = document.createElement("iframe");
    const draw = () => (frame.srcdoc = model.get("page"));
    const size = () => (frame.style.height = `${model.get("height")}px`);
    frame.title = model.get("title");
    frame.setAttribute("sandbox", "allow-scripts allow-downloads allow-forms");
    frame.style.cssText = "width: 100%; border: 0; display: block";
    draw();
    size();
    model.on("change:page", draw);
    model.on("change:height", size);
    el.appendChild(frame);
  },
};
