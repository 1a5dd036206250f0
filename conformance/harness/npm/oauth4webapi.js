// A server on oauth4webapi, with its validateJwtAccessToken.
import express from 'express'
import * as oauth from 'oauth4webapi'
import { algorithms, audience, identity, issuer, jwksUri, listen, origin, unavailable } from './setup.js'

const server = { issuer, jwks_uri: jwksUri }

const app = express()
const algs = algorithms.join(' ')
app.all('/any', async (req, res) => {
  res.set('Cache-Control', 'no-store')
  // Its Request joins lines of a header, so the lines are counted here.
  const lines = req.headersDistinct.authorization ?? []
  const scheme = /^dpop /i.test(lines[0]) ? 'DPoP' : 'Bearer'
  if (!/^(bearer|dpop) /i.test(lines[0] ?? '')) {
    return res.append('WWW-Authenticate', 'Bearer').append('WWW-Authenticate', `DPoP algs="${algs}"`).status(401).end()
  }
  if (lines.length > 1) return res.set('WWW-Authenticate', `${scheme} error="invalid_request"`).status(400).end()
  try {
    const request = new Request(origin + req.originalUrl, { method: req.method, headers: req.headers })
    // The suite is on loopback, without TLS.
    const claims = await oauth.validateJwtAccessToken(server, request, audience, { [oauth.allowInsecureRequests]: true, signingAlgorithms: algorithms })
    res.json(identity(claims))
  } catch (error) {
    if (unavailable(error)) return res.status(503).end()
    // Its errors do not tell a bad proof from a bad token, except in their messages.
    const code = scheme === 'DPoP' && /DPoP|proof/i.test(error.message) ? 'invalid_dpop_proof' : 'invalid_token'
    res.append('WWW-Authenticate', scheme === 'DPoP' ? `DPoP error="${code}", algs="${algs}"` : `Bearer error="${code}"`)
    if (scheme === 'Bearer') res.append('WWW-Authenticate', `DPoP algs="${algs}"`)
    res.status(401).end()
  }
})
listen(app)
