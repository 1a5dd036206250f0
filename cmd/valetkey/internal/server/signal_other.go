//go:build !unix

package server

import "os"

var rotateSignals []os.Signal // there is none to spare
