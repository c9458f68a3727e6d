// gradio tells of a slider that is let go by a pointer alone; keys let go of it, too.
(() => {
    const letGo = (element) =>
        element.dispatchEvent(new PointerEvent("pointerup", {bubbles: true}));
    document.addEventListener("keyup", ({target, key}) => {
        const moves = key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(key);
        if (target.matches?.('input[type="range"]') && moves) letGo(target);
        if (target.matches?.('.times input[type="number"], .master input[type="number"]')
            && (key === "Enter" || key === "ArrowUp" || key === "ArrowDown")) letGo(target);
    });
})();
