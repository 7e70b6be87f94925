// Requests to the service that this page came from, and to no other.

const KEY = "faceauth-key";
const WAITS = 5;

/** Why a request was refused: `status` 0 where nothing answered. */
export class Refusal extends Error {
  constructor(status, detail, hint = "") {
    super(detail);
    this.status = status;
    this.hint = hint;
  }
}

/** Keep the key in this tab. */
export const useKey = (key) => sessionStorage.setItem(KEY, key);

/** What the service is: its model, tasks and limits. */
export const about = () => ask("/v1/models");

/** The answer to one photo: "detect" and "provenance" give a list, "explain" one report. Throws Refusal. */
export async function judge(task, file) {
  for (let tries = 1; ; tries += 1) {
    const body = new FormData();
    body.append("files", file, file.name || "pasted.png");
    try {
      return await ask(`/v1/${task}`, { method: "POST", body, headers: { Accept: "application/json" } });
    } catch (error) {
      if (error.status !== 429 || tries === WAITS) throw error;
      await new Promise((go) => setTimeout(go, 1000 * error.seconds));
    }
  }
}

async function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
    if (answer.ok) return await answer.json();
  } catch {
    throw new Refusal(0, "The service does not answer.", "See whether it is still running, then try again.");
  }
  const problem = await answer.json().catch(() => ({}));
  const refusal = new Refusal(answer.status, problem.detail || `The service answered ${answer.status}.`, problem.hint);
  refusal.seconds = Number(answer.headers.get("Retry-After")) || 1;
  throw refusal;
}
