// Opens files in yaml-language-server, as an editor does.
//
//   node client.js FOLDER FILE...
//
// prints a JSON object: for each FILE in FOLDER, the mistakes that an editor marks, each with its line, and the description that it
// shows for the key in the second line.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, ...files] = process.argv.slice(2);
const package_ = createRequire(import.meta.url).resolve('yaml-language-server/package.json');
const server = spawn(process.execPath, [join(dirname(package_), 'bin', 'yaml-language-server'), '--stdio'], { stdio: ['pipe', 'pipe', 'inherit'] });

const answers = new Map(); // of our requests, by id
const published = new Map(); // by the URI of a file
let received = Buffer.alloc(0);
let last = 0;

function send(message) {
  const text = JSON.stringify({ jsonrpc: '2.0', ...message });
  server.stdin.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
}

function request(method, params) {
  return new Promise((resolve, reject) => {
    answers.set(++last, (m) => (m.error ? reject(new Error(m.error.message)) : resolve(m.result)));
    send({ id: last, method, params });
  });
}

function handle(m) {
  if (m.method === 'textDocument/publishDiagnostics') {
    published.get(m.params.uri)?.(m.params.diagnostics);
  } else if (m.method === 'workspace/configuration') {
    send({ id: m.id, result: m.params.items.map(() => null) });
  } else if (m.method && m.id !== undefined) {
    send({ id: m.id, result: null });
  } else {
    answers.get(m.id)?.(m);
  }
}

server.stdout.on('data', (chunk) => {
  received = Buffer.concat([received, chunk]);
  for (;;) {
    const end = received.indexOf('\r\n\r\n');
    const length = end < 0 ? 0 : Number(/Content-Length: (\d+)/.exec(received.subarray(0, end))[1]);
    if (end < 0 || received.length < end + 4 + length) return;
    const message = received.subarray(end + 4, end + 4 + length);
    received = received.subarray(end + 4 + length);
    handle(JSON.parse(message));
  }
});

await request('initialize', { processId: process.pid, rootUri: pathToFileURL(folder).href, capabilities: { textDocument: { hover: {} } } });
send({ method: 'initialized', params: {} });
send({ method: 'workspace/didChangeConfiguration', params: { settings: { yaml: { validate: true, hover: true, schemaStore: { enable: false } } } } });

const report = {};
for (const file of files) {
  const uri = pathToFileURL(join(folder, file)).href;
  const diagnostics = new Promise((resolve) => published.set(uri, resolve));
  send({ method: 'textDocument/didOpen', params: { textDocument: { uri, languageId: 'yaml', version: 1, text: readFileSync(join(folder, file), 'utf8') } } });
  const mistakes = (await diagnostics).map((d) => `${d.range.start.line + 1}: ${d.message}`);
  const hover = await request('textDocument/hover', { textDocument: { uri }, position: { line: 1, character: 1 } });
  report[file] = { mistakes, hover: hover?.contents.value ?? '' };
}
console.log(JSON.stringify(report));
server.kill();
