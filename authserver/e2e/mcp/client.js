// A client of the official TypeScript SDK that identifies itself by the metadata document at DOCUMENT. It calls the tool whoami of
// the MCP server at SERVER, asks the test to play the browser, and writes what happened as lines of JSON. mcp_npm_test.go states
// what must happen.
import { createInterface } from 'node:readline';

import { auth, UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const { SERVER: server, DOCUMENT: document, REDIRECT: redirect } = process.env;
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const tell = line => process.stdout.write(JSON.stringify(line) + '\n');

const kept = {};
const provider = {
	redirectUrl: redirect,
	clientMetadataUrl: document,
	clientMetadata: { redirect_uris: [redirect], token_endpoint_auth_method: 'none' },
	clientInformation: () => kept.client,
	saveClientInformation: client => { kept.client = client; },
	tokens: () => kept.tokens,
	saveTokens: tokens => { kept.tokens = tokens; },
	saveCodeVerifier: verifier => { kept.verifier = verifier; },
	codeVerifier: () => kept.verifier,
	redirectToAuthorization: url => { kept.login = url; },
};

const connect = async () => {
	const client = new Client({ name: 'npm', version: '1.0.0' });
	const transport = new StreamableHTTPClientTransport(new URL(server), { authProvider: provider });
	try {
		await client.connect(transport);
		return client;
	} catch (error) {
		if (!(error instanceof UnauthorizedError)) throw error;
		tell({ browse: kept.login.href });
		const back = new URL((await answers.next()).value);
		await transport.finishAuth(back.searchParams.get('code'), back.searchParams.get('iss') ?? undefined);
		return null;
	}
};

const call = async () => {
	const client = await connect() ?? await connect();
	const result = await client.callTool({ name: 'whoami' });
	await client.close();
	return result.content[0].text;
};

tell({ check: 'said', value: await call() });
tell({ check: 'client_id', value: kept.client?.client_id });
if (kept.tokens.refresh_token) {
	kept.tokens.access_token = '';
	tell({ check: 'refreshed', value: await auth(provider, { serverUrl: server }) });
	tell({ check: 'said', value: await call() });
}
process.stdin.destroy();
