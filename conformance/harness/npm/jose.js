// A server on jose, with its jwtVerify and createRemoteJWKSet.
import express from 'express'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { algorithms, audience, bearer, issuer, jwksUri, listen, unavailable } from './setup.js'

const keys = createRemoteJWKSet(new URL(jwksUri))

async function verify (raw) {
  try {
    const { payload } = await jwtVerify(raw, keys, {
      issuer, audience, algorithms, typ: 'at+jwt', requiredClaims: ['exp', 'iat', 'sub', 'jti', 'client_id']
    })
    return payload
  } catch (error) {
    if (unavailable(error)) error.unavailable = true
    throw error
  }
}

const app = express()
app.all('/any', bearer(verify))
listen(app)
