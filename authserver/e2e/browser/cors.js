// The script of a page, which calls the API of another origin and returns what it can read of the response.
async (api, resource, scenario) => {
	const bytes = text => new TextEncoder().encode(text);
	const base64url = buffer => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
	const digest = async text => base64url(await crypto.subtle.digest("SHA-256", bytes(text)));
	const token = async query => (await fetch("/token?" + query)).text();
	const none = {Status: 0, Body: "", Challenge: "", Nonce: false};
	const call = async (path, method, headers) => {
		try {
			return await fetch(api + path, {method, headers});
		} catch {
			return null; // a network error
		}
	};
	const read = async r => r === null ? none : {
		Status: r.status, Body: await r.text(), Challenge: r.headers.get("WWW-Authenticate") ?? "", Nonce: r.headers.has("DPoP-Nonce"),
	};
	const bearer = async scope => ({Authorization: "Bearer " + await token("scope=" + scope)});

	const withProof = async nonces => {
		const key = await crypto.subtle.generateKey({name: "ECDSA", namedCurve: "P-256"}, true, ["sign"]);
		const {crv, kty, x, y} = await crypto.subtle.exportKey("jwk", key.publicKey);
		const bound = await token("jkt=" + await digest(JSON.stringify({crv, kty, x, y})));
		let response, nonce;
		for (let i = 0; i <= nonces; i++) {
			const header = {typ: "dpop+jwt", alg: "ES256", jwk: {crv, kty, x, y}};
			const claims = {jti: crypto.randomUUID(), htm: "GET", htu: resource + "/orders", iat: Math.floor(Date.now() / 1000), ath: await digest(bound), nonce};
			const signed = base64url(bytes(JSON.stringify(header))) + "." + base64url(bytes(JSON.stringify(claims)));
			const signature = await crypto.subtle.sign({name: "ECDSA", hash: "SHA-256"}, key.privateKey, bytes(signed));
			response = await call("/orders", "GET", {Authorization: "DPoP " + bound, DPoP: signed + "." + base64url(signature)});
			nonce = response.headers.get("DPoP-Nonce") ?? undefined;
		}
		return response;
	};

	switch (scenario) {
	case "no token": return read(await call("/orders", "GET", {}));
	case "bad token": return read(await call("/orders", "GET", {Authorization: "Bearer x"}));
	case "no route": return read(await call("/admin", "GET", await bearer("orders:read")));
	case "too little scope": return read(await call("/orders/7", "DELETE", await bearer("orders:read")));
	case "read": return read(await call("/orders", "GET", await bearer("orders:read")));
	case "delete": return read(await call("/orders/7", "DELETE", await bearer("orders:write")));
	case "proof without nonce": return read(await withProof(0));
	case "proof with nonce": return read(await withProof(1));
	}
}
