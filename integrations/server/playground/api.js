// Ask the server that this page came from; paths are relative, so that a prefix before them does not matter.

export class ServerError extends Error {
  constructor(status, type, message) {
    super(message);
    this.status = status;
    this.type = type;
  }
}

// The parsed answer to a GET, or to a POST when there is a body. Throws ServerError, status 0 without any answer.
export async function ask(path, { key = "", body, signal } = {}) {
  const response = await send(path, key, body, signal);
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(response.status, "", `The server answered ${response.status}, but not in JSON.`);
  }
  if (response.ok) return answer;
  const wait = response.headers.get("retry-after");
  const message = String(answer?.error ?? `status ${response.status}`) + (wait ? ` (try again in ${wait} s)` : "");
  throw new ServerError(response.status, String(answer?.error_type ?? ""), message);
}

async function send(path, key, body, signal) {
  if (/[^\x21-\x7e]/.test(key)) throw new ServerError(401, "Unauthorized", "The key has characters that no key has.");
  const headers = key ? { "x-api-key": key } : {};
  if (body) headers["content-type"] = "application/json";
  const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
  try {
    return await fetch(`../${path}`, { ...options, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, "", "The server did not answer; is it still running?");
  }
}
