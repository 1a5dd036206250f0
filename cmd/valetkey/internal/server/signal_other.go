//go:build !unix

package server

import "os"

var rotateSignals []os.Signal // no suitable signal exists
