// One visit to an MCP server with the client of the official TypeScript SDK: connect, call one tool, leave.
// Reads {server, token, tool} as JSON from standard input, without a token if it is "", and writes to standard output what
// happened, as the SDK saw it. npm_test.go says what is right.
import { text } from 'node:stream/consumers';

import { extractWWWAuthenticateParams, UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const { server, token, tool } = JSON.parse(await text(process.stdin));
const visit = { refused: [], fetched: [] };

// A client that is registered already. It gets no token by itself: where its user would log in, it stops.
const provider = {
	redirectUrl: 'http://127.0.0.1/callback',
	clientMetadata: { redirect_uris: ['http://127.0.0.1/callback'] },
	clientInformation: () => ({ client_id: 'orders-app' }),
	tokens: () => (token ? { access_token: token, token_type: 'Bearer' } : undefined),
	saveTokens: () => { throw new Error('nobody logged in'); },
	saveCodeVerifier: () => {},
	codeVerifier: () => { throw new Error('nobody logged in'); },
	saveDiscoveryState: found => { visit.found = found; },
	redirectToAuthorization: url => { visit.login = url.href; },
};

// watched notes what the SDK reads in each refusal of the server, and every other document that it fetches.
async function watched(url, init) {
	const response = await fetch(url, init);
	if (String(url) !== server) {
		visit.fetched.push(`${response.status} ${url}`);
	} else if (response.status === 401 || response.status === 403) {
		const { error, scope } = extractWWWAuthenticateParams(response);
		visit.refused.push({ status: response.status, error, scope });
	}
	return response;
}

const client = new Client({ name: 'npm', version: '1.0.0' });
try {
	await client.connect(new StreamableHTTPClientTransport(new URL(server), { authProvider: provider, fetch: watched }));
	const result = await client.callTool({ name: tool });
	visit.said = result.content[0].text;
} catch (error) {
	visit.error = error instanceof UnauthorizedError ? 'login needed' : String(error);
} finally {
	await client.close();
}
process.stdout.write(JSON.stringify(visit));
