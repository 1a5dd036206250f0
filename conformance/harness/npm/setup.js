// What the servers share: the configuration, which the runner passes in the environment, and the code that a library leaves to its users.
import { createServer } from 'node:https'

const env = process.env
export const issuer = env.CONFORM_ISSUER
export const jwksUri = env.CONFORM_JWKS_URI
export const audience = env.CONFORM_AUDIENCE
export const origin = `http://${env.CONFORM_LISTEN}`
export const algorithms = ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA', 'Ed25519']
export const scopesOf = { '/any': [], '/scope': ['orders:read'], '/scopes': ['orders:read', 'orders:write'] }

// listen serves until the process ends. The socket, not a name, is the address: localhost may be another one. For the profile mtls, it serves TLS,
// and accepts any certificate of a client: a token names the one that it is bound to (RFC 8705, section 2.2).
export async function listen (app) {
  let server = app
  if (env.CONFORM_PROFILE === 'mtls') {
    const { generate } = await import('selfsigned')
    const { private: key, cert } = await generate()
    server = createServer({ key, cert, requestCert: true, rejectUnauthorized: false }, app)
  }
  server.listen(Number(env.PORT), '127.0.0.1')
}

export function identity ({ sub, client_id, scope }) { // eslint-disable-line camelcase
  return { sub, client_id, scope }
}

// unavailable reports whether an error of jose, or of oauth4webapi, is about fetching the keys. The others are about the token.
export function unavailable (error) {
  const at = error.cause instanceof Error ? error.cause : error
  return ['ERR_JOSE_GENERIC', 'ERR_JWKS_TIMEOUT', 'OAUTH_RESPONSE_IS_NOT_CONFORM'].includes(error.code) || at.message === 'fetch failed' || error.message === 'fetch failed'
}

// bearer has what RFC 6750, sections 2.1 and 3, and RFC 9110, section 11, ask of code around a library that only verifies tokens, so that the
// result is that of the library. verify returns claims; an error whose property unavailable is true is not the fault of the token.
export function bearer (verify) {
  return async (req, res) => {
    const refuse = (status, challenge) => {
      if (challenge) res.set('WWW-Authenticate', challenge)
      res.set('Cache-Control', 'no-store').status(status).end()
    }
    const lines = req.headersDistinct.authorization ?? []
    if (lines.length === 0) return refuse(401, 'Bearer realm="api"')
    const [, scheme, raw] = /^(\S*) *(.*)$/.exec(lines[0])
    if (lines.length > 1) return refuse(400, 'Bearer realm="api", error="invalid_request"')
    if (scheme.toLowerCase() !== 'bearer') return refuse(401, 'Bearer realm="api"')
    if (!/^[^\s,]+$/.test(raw)) return refuse(400, 'Bearer realm="api", error="invalid_request"')
    try {
      res.json(identity(await verify(raw)))
    } catch (error) {
      if (error.unavailable) return refuse(503)
      refuse(401, 'Bearer realm="api", error="invalid_token"')
    }
  }
}
