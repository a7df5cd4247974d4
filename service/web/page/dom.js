// Elements from names, attributes and children. Texts become text nodes, so that no name of a photo is ever markup.

export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

// Sets a text where it is another: the same one again would be laid out again.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// A photo's picture, with its name in place of one that is missing or broken.
export function portrait(gallery, photoId, className = "portrait") {
  const frame = element("span", { class: className });
  const image = element("img", { alt: "", decoding: "async", draggable: "false", src: thumbnailUrl(gallery, photoId) });
  image.addEventListener("error", () => {
    image.remove();
    frame.append(element("span", { class: "no-picture" }, "no picture"));
  });
  frame.append(image);
  return frame;
}

export function thumbnailUrl(gallery, photoId) {
  return `/api/thumbnail?${new URLSearchParams({ gallery, id: photoId })}`;
}

// The image at an address, null where there is none.
export async function loaded(url) {
  const image = new Image();
  image.src = url;
  return image.decode().then(() => image, () => null);
}

export async function getJson(url, options) {
  const response = await fetch(url, options);
  const body = await response.json().catch(() => ({ message: response.statusText }));
  if (!response.ok) throw new Error(body.message);
  return body;
}

export function download(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = element("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
