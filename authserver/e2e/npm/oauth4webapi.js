// The checks with oauth4webapi, where every step is the application's own.
import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';

import * as oauth from 'oauth4webapi';

import { browse, check, done, initialToken, issuer, orders, reads, refused, secretOf, vault } from './run.js';

const loopback = { [oauth.allowInsecureRequests]: true };

const secretive = id => [{ client_id: id }, oauth.ClientSecretBasic(secretOf(id))];
const [web, webAuth] = secretive('web');
const [service, serviceAuth] = secretive('service');
const [ordersAPI, ordersAuth] = secretive('orders-api');
const [vaultAPI, vaultAuth] = secretive('vault-api');
const app = { client_id: 'app' }; // public
const tv = { client_id: 'tv' };
const callback = 'https://web.example/callback?from=valetkey';
const appCallback = 'http://127.0.0.1:4711/callback'; // any port is right for a native application

const as = await check('discovery', async () => {
	const server = new URL(issuer);
	const found = await oauth.processDiscoveryResponse(server, await oauth.discoveryRequest(server, { algorithm: 'oauth2', ...loopback }));
	assert.equal(found.authorization_response_iss_parameter_supported, true);
	return found;
});

// redirected is an authorization response, looked at as RFC 6749, 4.1.2 and RFC 9207 say.
async function redirected(client, query, state) {
	const url = new URL(as.authorization_endpoint);
	url.search = new URLSearchParams({ client_id: client.client_id, ...query });
	return oauth.validateAuthResponse(as, client, await browse(url), state);
}

// login goes through the code flow; push is for a request that is pushed.
async function login(client, auth, { parameters = {}, push, ...options } = {}) {
	const verifier = oauth.generateRandomCodeVerifier();
	const state = oauth.generateRandomState();
	const redirect = parameters.redirect_uri ?? callback;
	const request = {
		response_type: 'code', redirect_uri: redirect, scope: 'orders:read', state,
		code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256', ...parameters,
	};
	const response = await redirected(client, push ? await push({ ...request }) : request, state);
	const answer = await oauth.authorizationCodeGrantRequest(as, client, auth, response, redirect, verifier, { ...loopback, ...options });
	return oauth.processAuthorizationCodeResponse(as, client, answer);
}

async function refresh(client, auth, token, options) {
	const answer = await oauth.refreshTokenGrantRequest(as, client, auth, token, { ...loopback, ...options });
	return oauth.processRefreshTokenResponse(as, client, answer);
}

async function ownToken(parameters) {
	const answer = await oauth.clientCredentialsGrantRequest(as, service, serviceAuth, parameters, loopback);
	return oauth.processClientCredentialsResponse(as, service, answer);
}

async function introspect(client, auth, token, options) {
	const answer = await oauth.introspectionRequest(as, client, auth, token, { ...loopback, ...options });
	const told = await oauth.processIntrospectionResponse(as, client, answer);
	if (options?.requestJwtResponse) {
		await oauth.validateApplicationLevelSignature(as, answer, loopback);
	}
	return told;
}

const use = (token, api, options) => oauth.protectedResourceRequest(token, 'GET', new URL(api), undefined, undefined, { ...loopback, ...options });

// The library can also be the API: what it thinks of a token (RFC 9068, section 4).
const judge = (token, api) => oauth.validateJwtAccessToken(as, new Request(api, { headers: { authorization: `Bearer ${token}` } }), api, loopback);

const tokens = await check('code and PKCE', async () => {
	const got = await login(web, webAuth);
	assert.equal(got.token_type, 'bearer');
	assert.equal(got.scope, 'orders:read');
	await reads(await use(got.access_token, orders));
	const claims = await judge(got.access_token, orders);
	assert.equal(claims.sub, 'customer:alice');
	assert.equal(claims.client_id, 'web');
	return got;
});

await check('refresh', async () => {
	const next = await refresh(web, webAuth, tokens.refresh_token);
	assert.notEqual(next.refresh_token, tokens.refresh_token);
	await reads(await use(next.access_token, orders));
	await refused(refresh(web, webAuth, tokens.refresh_token), 'invalid_grant');
	await refused(refresh(web, webAuth, next.refresh_token), 'invalid_grant'); // the whole family has ended
	assert.deepEqual(await introspect(ordersAPI, ordersAuth, next.access_token), { active: false });
});

await check('client credentials', async () => {
	const jwt = await ownToken({ scope: 'orders:read' });
	await reads(await use(jwt.access_token, orders), 'service');
	assert.equal((await judge(jwt.access_token, orders)).sub, 'service');
	const opaque = await ownToken({ resource: vault });
	assert.equal(opaque.scope, 'vault:open');
	await reads(await use(opaque.access_token, vault), 'service');
	await refused(ownToken({ scope: 'orders:write' }), 'invalid_scope');
});

await check('device', async () => {
	const device = await oauth.processDeviceAuthorizationResponse(as, tv,
		await oauth.deviceAuthorizationRequest(as, tv, oauth.None(), { scope: 'orders:read' }, loopback));
	const poll = async () => oauth.processDeviceCodeResponse(as, tv,
		await oauth.deviceCodeGrantRequest(as, tv, oauth.None(), device.device_code, loopback));
	await refused(poll(), 'authorization_pending');
	await browse(device.verification_uri_complete);
	await setTimeout((device.interval ?? 5) * 1000);
	const got = await poll();
	await reads(await use(got.access_token, orders));
	await refused(poll(), 'invalid_grant');
});

await check('pushed authorization request', async () => {
	const push = async request => {
		const answer = await oauth.pushedAuthorizationRequest(as, web, webAuth, request, loopback);
		const { request_uri } = await oauth.processPushedAuthorizationResponse(as, web, answer);
		return { request_uri };
	};
	const got = await login(web, webAuth, { push });
	await reads(await use(got.access_token, orders));
});

await check('DPoP', async () => {
	const DPoP = oauth.DPoP(app, await oauth.generateKeyPair('ES256'));
	const stranger = oauth.DPoP(app, await oauth.generateKeyPair('ES256'));
	const parameters = { redirect_uri: appCallback, dpop_jkt: await DPoP.calculateThumbprint() };
	const got = await login(app, oauth.None(), { parameters, DPoP });
	assert.equal(got.token_type, 'dpop');
	await reads(await use(got.access_token, orders, { DPoP }));
	await assert.rejects(use(got.access_token, orders), oauth.WWWAuthenticateChallengeError); // as if it were a bearer token
	await assert.rejects(use(got.access_token, orders, { DPoP: stranger }), oauth.WWWAuthenticateChallengeError);
	assert.equal((await introspect(ordersAPI, ordersAuth, got.access_token)).cnf.jkt, parameters.dpop_jkt);

	await refused(refresh(app, oauth.None(), got.refresh_token, { DPoP: stranger }), 'invalid_grant');
	const next = await refresh(app, oauth.None(), got.refresh_token, { DPoP });
	await reads(await use(next.access_token, orders, { DPoP }));
	await refused(login(app, oauth.None(), { parameters, DPoP: stranger }), 'invalid_grant');
});

await check('introspection', async () => {
	const got = await login(web, webAuth, { parameters: { scope: 'vault:open' } });
	const told = await introspect(vaultAPI, vaultAuth, got.access_token);
	assert.equal(told.active, true);
	assert.equal(told.sub, 'customer:alice');
	assert.equal(told.client_id, 'web');
	assert.equal(told.scope, 'vault:open');
	const signed = await introspect({ ...vaultAPI, introspection_signed_response_alg: 'ES256' }, vaultAuth, got.access_token, { requestJwtResponse: true });
	assert.deepEqual(signed, told);
	assert.deepEqual(await introspect(ordersAPI, ordersAuth, got.access_token), { active: false }); // not its token
	await assert.rejects(introspect(vaultAPI, oauth.ClientSecretBasic('a wrong secret'), got.access_token), oauth.WWWAuthenticateChallengeError);
});

await check('revocation', async () => {
	const got = await login(web, webAuth, { parameters: { scope: 'vault:open' } });
	await reads(await use(got.access_token, vault));
	await oauth.processRevocationResponse(await oauth.revocationRequest(as, web, webAuth, got.refresh_token, loopback));
	assert.deepEqual(await introspect(vaultAPI, vaultAuth, got.access_token), { active: false });
	await refused(refresh(web, webAuth, got.refresh_token), 'invalid_grant');
});

await check('registration', async () => {
	const register = async (metadata, initialAccessToken) => oauth.processDynamicClientRegistrationResponse(
		await oauth.dynamicClientRegistrationRequest(as, metadata, { ...loopback, initialAccessToken }));
	const keys = await oauth.generateKeyPair('ES256');
	const { kty, crv, x, y } = await crypto.subtle.exportKey('jwk', keys.publicKey);
	const metadata = {
		client_name: 'Registered by itself', redirect_uris: [callback], grant_types: ['authorization_code', 'refresh_token'],
		scope: 'orders:read', token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [{ kty, crv, x, y, kid: 'one', alg: 'ES256' }] },
	};
	await assert.rejects(register(metadata), oauth.WWWAuthenticateChallengeError);
	const { registration_access_token, registration_client_uri, ...client } = await register(metadata, initialToken);
	const got = await login(client, oauth.PrivateKeyJwt({ key: keys.privateKey, kid: 'one' }));
	await reads(await use(got.access_token, orders));

	// RFC 7592
	const manage = method => oauth.protectedResourceRequest(registration_access_token, method, new URL(registration_client_uri), undefined, undefined, loopback);
	assert.equal((await (await manage('GET')).json()).client_name, metadata.client_name);
	assert.equal((await manage('DELETE')).status, 204);
	await assert.rejects(manage('GET'), oauth.WWWAuthenticateChallengeError);
	assert.deepEqual(await introspect(ordersAPI, ordersAuth, got.access_token), { active: false });
});

done();
