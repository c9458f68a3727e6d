// Before gradio's own script. gradio knows two languages of Chinese, zh-CN and zh-TW, by these
// names alone; browsers have more names for them.
(() => {
    const [tag, ...rest] = navigator.language.toLowerCase().split("-");
    if (tag !== "zh") return;
    const traditional = rest.some((part) => ["hant", "tw", "hk", "mo"].includes(part));
    Object.defineProperty(navigator, "language", {value: traditional ? "zh-TW" : "zh-CN"});
})();

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
