// Makes a key, prints its thumbprint, reads an access token that is bound to it, and gets each URL with a proof. It prints one
// line for each: status, body.
import * as oauth from 'oauth4webapi'
import { createInterface } from 'node:readline'

const keys = await oauth.generateKeyPair('ES256')
const proofs = oauth.DPoP({ client_id: 'npm-client' }, keys)
console.log(await proofs.calculateThumbprint())

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const token = (await lines.next()).value

for (const url of process.argv.slice(2)) {
  const get = () => oauth.protectedResourceRequest(token, 'GET', new URL(url), undefined, undefined, { DPoP: proofs })
  const response = await get().catch((err) => {
    if (!oauth.isDPoPNonceError(err)) throw err
    return get() // the library has taken the nonce of the refusal
  })
  console.log(response.status, await response.text())
}
process.exit(0)
