// A certified OpenID provider for provider_test.go: node-oidc-provider. Its client credentials and its DPoP are its own. It has no token
// exchange, but an extension point for grants, with which exchange below issues tokens as RFC 8693 specifies. Prints one line of JSON.
import { createServer } from 'node:http';

import * as jose from 'jose';
import Provider, { errors } from 'oidc-provider';

const grant = 'urn:ietf:params:oauth:grant-type:token-exchange';
const accessToken = 'urn:ietf:params:oauth:token-type:access_token';
const [orders, stock] = ['https://orders.example.com', 'https://stock.example.com'];

const server = createServer().listen(0, '127.0.0.1');
await new Promise(resolve => server.once('listening', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

function resourceServerOf(ctx, resource) {
	if (![orders, stock].includes(resource)) throw new errors.InvalidTarget();
	return { audience: resource, scope: 'stock:read orders:read', accessTokenFormat: 'jwt', accessTokenTTL: 600 };
}

const provider = new Provider(issuer, {
	clients: [{
		client_id: 'orders', client_secret: 'the secret of orders', grant_types: ['client_credentials', grant], redirect_uris: [], response_types: [],
		token_endpoint_auth_method: 'client_secret_basic',
	}],
	jwks: { keys: [{ ...await jose.exportJWK((await jose.generateKeyPair('RS256', { extractable: true })).privateKey), alg: 'RS256', use: 'sig', kid: 'one' }] },
	scopes: ['stock:read', 'orders:read'],
	features: {
		devInteractions: { enabled: false },
		clientCredentials: { enabled: true },
		dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 'a'), requireNonce: () => true },
		resourceIndicators: {
			enabled: true,
			getResourceServerInfo: resourceServerOf,
		},
	},
	extraTokenClaims: ctx => ctx?.oidc?.params?.grant_type === grant ? { act: { sub: ctx.oidc.client.clientId } } : undefined,
});

const keys = jose.createRemoteJWKSet(new URL(`${issuer}/jwks`));

async function exchange(ctx) {
	const { client, params } = ctx.oidc;
	if (!params.subject_token || params.subject_token_type !== accessToken) throw new errors.InvalidRequest('subject_token or its type is missing');
	if (params.requested_token_type && params.requested_token_type !== accessToken) throw new errors.InvalidRequest('requested_token_type');
	const { payload } = await jose.jwtVerify(params.subject_token, keys, { issuer, audience: orders, typ: 'at+jwt' }).catch(() => {
		throw new errors.InvalidRequest('subject_token is invalid');
	});
	const { resourceServer, token } = await issue(ctx, client, payload.sub, params.resource, params.scope);
	ctx.body = { access_token: token, issued_token_type: accessToken, token_type: 'Bearer', expires_in: resourceServer.accessTokenTTL };
}

// issue returns an access token of a user for a resource.
async function issue(ctx, client, accountId, resource, scope) {
	const resourceServer = new provider.ResourceServer(resource, resourceServerOf(ctx, resource));
	const token = new provider.AccessToken({ client, accountId, scope, gty: 'exchange' });
	token.resourceServer = resourceServer;
	return { resourceServer, token: await token.save() };
}

provider.registerGrantType(grant, exchange,
	['subject_token', 'subject_token_type', 'requested_token_type', 'actor_token', 'actor_token_type', 'audience', 'resource', 'scope']);
server.on('request', provider.callback());

const client = await provider.Client.find('orders');
const { token } = await issue(undefined, client, 'alice', orders, 'orders:read');
process.stdout.write(JSON.stringify({ issuer, token }) + '\n');
process.stdin.resume().on('end', () => process.exit());
