// Texts of the page whose contrast with its ground is below 3 (WCAG 2.1's relative luminance).
const SEEN = ["svg text", "[data-testid=stMarkdownContainer] p", "[data-testid=stCaptionContainer] p"];

function channels(color) {
  const [r, g, b, alpha = 1] = color.match(/[\d.]+/g).map(Number);
  return { rgb: [r, g, b], alpha };
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => (c <= 10 ? c / 3294 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function opacity(each) {
  return each ? Number(getComputedStyle(each).opacity) * opacity(each.parentElement) : 1;
}

window.faintTexts = () => {
  const main = document.querySelector("[data-testid=stMain]");
  const below = channels(getComputedStyle(document.querySelector("[data-testid=stApp]")).backgroundColor).rgb;
  const ground = luminance(below);
  return [...main.querySelectorAll(SEEN.join(", "))]
    .filter((each) => each.getBoundingClientRect().width && each.textContent.trim() && opacity(each) > 0)
    .filter((each) => !each.closest(".bars, button")) // these have a ground of their own
    .filter((each) => {
      const style = getComputedStyle(each);
      const { rgb, alpha } = channels(each.tagName === "text" ? style.fill : style.color);
      const share = alpha * opacity(each);
      const own = luminance(rgb.map((c, i) => share * c + (1 - share) * below[i]));
      return (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05) < 3;
    })
    .map((each) => each.textContent.trim());
};
