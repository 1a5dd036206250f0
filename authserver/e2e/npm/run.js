// What the scripts of both libraries share. One runs against the server at ISSUER, whose tokens the APIs at ORDERS (JWT) and
// VAULT (opaque) take, and writes a line of JSON for each check; where a user is needed, it asks the test to play the browser.
// clients_test.go says which checks there are, and configures the clients.
import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';

export const { ISSUER: issuer, ORDERS: orders, VAULT: vault, INITIAL_TOKEN: initialToken } = process.env;

export const secretOf = id => `the secret of ${id}`;

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const tell = line => process.stdout.write(JSON.stringify(line) + '\n');

// check runs one check. Later ones may use what it returns; if it has failed, they fail as well.
export async function check(name, run) {
	try {
		const result = await run();
		tell({ check: name });
		return result;
	} catch (error) {
		tell({ check: name, error: error.stack + (error.error ? ` (${error.error})` : '') });
	}
}

// browse has alice open a URL, log in and allow all that she is asked, and returns where the browser is led in the end.
export async function browse(url) {
	tell({ browse: String(url) });
	return new URL((await answers.next()).value);
}

// refused expects an error of OAuth.
export const refused = (promise, code) => assert.rejects(promise, error => {
	assert.equal(error.error, code, error.stack);
	return true;
});

// reads expects an answer of an API to alice, or to a client by itself.
export async function reads(response, sub = 'customer:alice') {
	assert.equal(response.status, 200, response.headers.get('www-authenticate'));
	assert.deepEqual(await response.json(), { sub });
}

// done ends the script: nothing else is to be asked.
export const done = () => process.stdin.destroy();
