// The upstream provider of the example: node-oidc-provider, which is certified, with two ways to log in. A password has the acr "pwd". The
// button for a passkey has the acr "phr" and only stands for one: a real provider asks the authenticator of the user.
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const { PORT, CLIENT_ID, CLIENT_SECRET, REDIRECT_URI } = process.env;
const issuer = `http://127.0.0.1:${PORT}`;
const users = { alice: { name: 'Alice Example', password: 'the password of alice' } };

const provider = new Provider(issuer, {
	clients: [{ client_id: CLIENT_ID, client_secret: CLIENT_SECRET, redirect_uris: [REDIRECT_URI] }],
	acrValues: ['pwd', 'phr'],
	claims: { acr: null, auth_time: null, openid: ['sub'], profile: ['name'] },
	conformIdTokenClaims: false, // the ID token has the name
	features: { claimsParameter: { enabled: true }, devInteractions: { enabled: false } },
	findAccount: (_, id) => users[id] && { accountId: id, claims: () => ({ sub: id, name: users[id].name }) },
	interactions: { url: (_, interaction) => `/log-in/${interaction.uid}` },
	cookies: { keys: ['the keys of an example'] },
});

const page = (form, problem = '') => `<!DOCTYPE html><html lang="en"><title>Upstream</title><h1>Log in at the upstream provider</h1>
<p role="alert">${problem}</p><form method="post">${form}<button name="do" value="cancel">Cancel</button></form></html>`;
const password = '<label>Name <input name="name"></label><label>Password <input name="password" type="password"></label><button name="do" value="pwd">Log in</button>';
const passkey = '<input type="hidden" name="name" value="alice"><button name="do" value="phr">Use a passkey</button>';

async function logIn(req, res) {
	const { prompt, params, session } = await provider.interactionDetails(req, res);
	const finish = result => provider.interactionFinished(req, res, result, { mergeWithLastSubmission: true });
	if (prompt.name === 'consent') { // the only client is the log-in page of the same operator
		const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
		grant.addOIDCScope(params.scope);
		return finish({ consent: { grantId: await grant.save() } });
	}
	const stronger = prompt.reasons.some(reason => reason.startsWith('essential_acr')) && session;
	const form = stronger ? passkey : password;
	res.setHeader('content-type', 'text/html; charset=utf-8');
	if (req.method !== 'POST') return res.end(page(form));
	let body = '';
	for await (const chunk of req) body += chunk;
	const sent = new URLSearchParams(body);
	const name = sent.get('name'), acr = sent.get('do');
	if (acr === 'cancel') return finish({ error: 'access_denied', error_description: 'the user has canceled' });
	const known = acr === 'phr' ? session?.accountId === name : users[name]?.password === sent.get('password');
	if (!known || acr === 'phr' && !stronger) return res.end(page(form, 'The name or the password is wrong.'));
	return finish({ login: { accountId: name, acr } });
}

const rest = provider.callback();
createServer((req, res) => {
	if (!req.url.startsWith('/log-in/')) return rest(req, res);
	logIn(req, res).catch(error => {
		console.error(error);
		res.statusCode = 400;
		res.end('the log-in has expired');
	});
}).listen(Number(PORT), '127.0.0.1', () => console.log(issuer));
