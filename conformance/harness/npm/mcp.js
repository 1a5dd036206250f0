// A server on the bearer gate of the MCP SDK for TypeScript, with jose as the verifier.
import express from 'express'
import { requireBearerAuth } from '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js'
import { getOAuthProtectedResourceMetadataUrl, mcpAuthMetadataRouter } from '@modelcontextprotocol/sdk/server/auth/router.js'
import { InvalidTokenError, ServerError } from '@modelcontextprotocol/sdk/server/auth/errors.js'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { algorithms, audience, identity, issuer, jwksUri, listen, scopesOf, unavailable } from './setup.js'

const keys = createRemoteJWKSet(new URL(jwksUri))
const resource = new URL(audience)

const verifier = {
  async verifyAccessToken (token) {
    try {
      const { payload } = await jwtVerify(token, keys, { issuer, audience, algorithms, typ: 'at+jwt', requiredClaims: ['exp', 'client_id'] })
      const scopes = typeof payload.scope === 'string' ? payload.scope.split(' ') : []
      return { token, clientId: payload.client_id, scopes, expiresAt: payload.exp, resource, extra: payload }
    } catch (error) {
      if (unavailable(error)) throw new ServerError('keys')
      throw new InvalidTokenError('The token is not valid')
    }
  }
}

const app = express()
app.use(mcpAuthMetadataRouter({
  oauthMetadata: {
    issuer,
    authorization_endpoint: `${issuer}/authorize`,
    token_endpoint: `${issuer}/token`,
    response_types_supported: ['code']
  },
  resourceServerUrl: resource,
  scopesSupported: ['orders:read', 'orders:write']
}))
for (const [path, requiredScopes] of Object.entries(scopesOf)) {
  app.all(path, requireBearerAuth({
    verifier, requiredScopes, resourceMetadataUrl: getOAuthProtectedResourceMetadataUrl(resource), expectedResource: resource
  }), (req, res) => res.json(identity(req.auth.extra)))
}
listen(app)
