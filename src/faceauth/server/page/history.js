// Small previews and verdicts, kept in this browser alone, and only where the user wants it.

const STORE = "faceauth-history";
const MOST = 60;
const SIDE = 96;

/** What is kept, newest first; null where nothing is to be kept. */
export function kept() {
  try {
    const entries = JSON.parse(localStorage.getItem(STORE));
    return Array.isArray(entries) ? entries : null;
  } catch {
    return null;
  }
}

/** Begin to keep, or keep this. Throws where the browser does not allow it. */
export const keep = (entries) => localStorage.setItem(STORE, JSON.stringify(entries.slice(0, MOST)));

/** Remove everything, and keep nothing more. */
export const forget = () => localStorage.removeItem(STORE);

/** A preview of 96 pixels as a data URL; empty where the browser cannot show the format. */
export async function preview(file) {
  try {
    const image = await createImageBitmap(file);
    const scale = Math.min(1, SIDE / Math.max(image.width, image.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    image.close();
    return canvas.toDataURL("image/jpeg", 0.7);
  } catch {
    return "";
  }
}
