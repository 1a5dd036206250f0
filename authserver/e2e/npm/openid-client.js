// The checks with openid-client, which does most steps for the application.
import assert from 'node:assert/strict';

import * as client from 'openid-client';

import { browse, check, done, initialToken, issuer, orders, reads, refused, secretOf, vault } from './run.js';

const options = { algorithm: 'oauth2', execute: [client.allowInsecureRequests] };
const callback = 'https://web.example/callback'; // the library would lose a query
const appCallback = 'http://localhost:4712/callback';

const discover = (id, auth = client.ClientSecretBasic(secretOf(id))) => client.discovery(new URL(issuer), id, undefined, auth, options);

const [web, service, vaultAPI, app, tv] = await check('discovery', () => Promise.all([
	discover('web'), discover('service'), discover('vault-api'), discover('app', client.None()), discover('tv', client.None()),
])) ?? [];

// login goes through the code flow; build makes the URL that it begins with.
async function login(config, { parameters = {}, build = client.buildAuthorizationUrl, tokenOptions } = {}) {
	const verifier = client.randomPKCECodeVerifier();
	const state = client.randomState();
	const url = await build(config, {
		redirect_uri: callback, scope: 'orders:read', state,
		code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256', ...parameters,
	}, tokenOptions);
	return client.authorizationCodeGrant(config, await browse(url), { pkceCodeVerifier: verifier, expectedState: state }, undefined, tokenOptions);
}

const use = (config, token, api, tokenOptions) => client.fetchProtectedResource(config, token, new URL(api), 'GET', undefined, undefined, tokenOptions);

const tokens = await check('code and PKCE', async () => {
	const got = await login(web);
	assert.equal(got.token_type, 'bearer');
	assert.equal(got.scope, 'orders:read');
	assert(got.expiresIn() > 0);
	await reads(await use(web, got.access_token, orders));
	return got;
});

await check('refresh', async () => {
	const next = await client.refreshTokenGrant(web, tokens.refresh_token);
	assert.notEqual(next.refresh_token, tokens.refresh_token);
	await reads(await use(web, next.access_token, orders));
	await refused(client.refreshTokenGrant(web, tokens.refresh_token), 'invalid_grant');
});

await check('client credentials', async () => {
	const jwt = await client.clientCredentialsGrant(service, { scope: 'orders:read' });
	await reads(await use(service, jwt.access_token, orders), 'service');
	const opaque = await client.clientCredentialsGrant(service, { resource: vault });
	await reads(await use(service, opaque.access_token, vault), 'service');
});

await check('device', async () => {
	const device = await client.initiateDeviceAuthorization(tv, { scope: 'orders:read' });
	const polled = client.pollDeviceAuthorizationGrant(tv, device);
	await browse(device.verification_uri_complete);
	await reads(await use(tv, (await polled).access_token, orders));
});

await check('pushed authorization request', async () => {
	const got = await login(web, { build: client.buildAuthorizationUrlWithPAR });
	await reads(await use(web, got.access_token, orders));
});

await check('DPoP', async () => {
	const handle = async () => ({ DPoP: client.getDPoPHandle(app, await client.randomDPoPKeyPair('ES256')) });
	const ours = await handle(), stranger = await handle();
	// What is pushed with a proof is bound to its key (RFC 9449, section 10.1).
	const got = await login(app, { parameters: { redirect_uri: appCallback }, build: client.buildAuthorizationUrlWithPAR, tokenOptions: ours });
	assert.equal(got.token_type, 'dpop');
	await reads(await use(app, got.access_token, orders, ours));
	await assert.rejects(use(app, got.access_token, orders, stranger), client.WWWAuthenticateChallengeError);
	await refused(client.refreshTokenGrant(app, got.refresh_token, undefined, stranger), 'invalid_grant');
	const next = await client.refreshTokenGrant(app, got.refresh_token, undefined, ours);
	await reads(await use(app, next.access_token, orders, ours));
});

await check('introspection', async () => {
	const got = await login(web, { parameters: { scope: 'vault:open' } });
	const told = await client.tokenIntrospection(vaultAPI, got.access_token);
	assert.equal(told.active, true);
	assert.equal(told.sub, 'customer:alice');
	assert.equal(told.scope, 'vault:open');
});

await check('revocation', async () => {
	const got = await login(web, { parameters: { scope: 'vault:open' } });
	await client.tokenRevocation(web, got.access_token);
	assert.deepEqual(await client.tokenIntrospection(vaultAPI, got.access_token), { active: false });
	await refused(client.refreshTokenGrant(web, got.refresh_token), 'invalid_grant');
});

await check('registration', async () => {
	const metadata = { client_name: 'Registered by itself', redirect_uris: [callback], scope: 'orders:read', token_endpoint_auth_method: 'client_secret_basic' };
	const register = more => client.dynamicClientRegistration(new URL(issuer), metadata, undefined, { ...options, ...more });
	await assert.rejects(register());
	const registered = await register({ initialAccessToken: initialToken });
	const { client_id, client_secret } = registered.clientMetadata();
	const got = await login(await client.discovery(new URL(issuer), client_id, undefined, client.ClientSecretBasic(client_secret), options));
	await reads(await use(registered, got.access_token, orders));
});

done();
