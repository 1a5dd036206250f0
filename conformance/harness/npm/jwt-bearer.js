// A server on express-oauth2-jwt-bearer, with strict mode, DPoP and mTLS.
import express from 'express'
import { auth, requiredScopes } from 'express-oauth2-jwt-bearer'
import { audience, identity, issuer, listen, scopesOf } from './setup.js'

const app = express()
app.use(auth({
  issuerBaseURL: issuer,
  audience,
  strict: true,
  dpop: { enabled: true, required: false },
  mtls: { enabled: true, required: false },
  getCertificate: req => req.socket.getPeerX509Certificate?.()?.raw
}))
for (const [path, scopes] of Object.entries(scopesOf)) {
  const guards = scopes.length > 0 ? [requiredScopes(scopes)] : []
  app.all(path, ...guards, (req, res) => res.json(identity(req.auth.payload)))
}
listen(app)
