// Before gradio's own scripts. gradio knows two languages of Chinese, zh-CN and zh-TW, by these
// names alone; browsers have more names for them.
(() => {
    const [tag, ...rest] = navigator.language.toLowerCase().split("-");
    if (tag !== "zh") return;
    const traditional = rest.some((part) => ["hant", "tw", "hk", "mo"].includes(part));
    Object.defineProperty(navigator, "language", {value: traditional ? "zh-TW" : "zh-CN"});
})();
