// Runs a server, with several processes that are started again when they end, as process managers do in production: node supervise.js FILE
import cluster from 'node:cluster'

cluster.setupPrimary({ exec: process.argv[2] })
let listens = false
cluster.on('listening', () => {
  if (!listens) cluster.fork()
  listens = true
})
cluster.on('exit', () => {
  if (!listens) process.exit(1) // it cannot start
  cluster.fork()
})
cluster.fork()
