// The request as a command and as a program. The API key is never written into either.

export function curl(url, body, withKey) {
  const key = withKey ? ' \\\n  -H "x-api-key: $CTXPRUNE_API_KEY"' : "";
  return `curl ${quoted(`${url}v1/compress`)} -H "content-type: application/json"${key} \\\n  -d ${quoted(JSON.stringify(body, null, 2))}`;
}

export function python(url, body, withKey) {
  const { query, documents, ...options } = body;
  const key = withKey ? ', api_key=os.environ["CTXPRUNE_API_KEY"]' : "";
  const lines = documents.map((document) => `    ${JSON.stringify(document)},`);
  const literal = (value) => (typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value));
  const given = Object.entries(options).map(([name, value]) => `, ${name}=${literal(value)}`);
  return [
    ...(withKey ? ["import os", ""] : []),
    "from ctxprune.integrations.client import Client",
    "",
    "documents = [",
    ...lines,
    "]",
    `with Client(${JSON.stringify(url)}${key}) as client:`,
    `    result = client.compress(${JSON.stringify(query)}, documents${given.join("")})`,
    "print(result.text)",
    'print(f"{result.tokens_before} -> {result.tokens_after} tokens, {result.status}")',
    "",
  ].join("\n");
}

// One word to a POSIX shell, whatever is in it.
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
