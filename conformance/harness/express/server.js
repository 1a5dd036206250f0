const express = require('express')
const { auth, requiredScopes } = require('express-oauth2-jwt-bearer')

const app = express()
app.use(auth({
  issuer: process.env.CONFORM_ISSUER,
  jwksUri: process.env.CONFORM_JWKS_URI,
  audience: process.env.CONFORM_AUDIENCE
}))
app.get('/', (req, res) => res.json({}))
app.get('/orders', requiredScopes('orders:read'), (req, res) => res.json([]))
app.listen(process.env.PORT, '127.0.0.1')
