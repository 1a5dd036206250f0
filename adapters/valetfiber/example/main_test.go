package main_test

import (
	"testing"

	"github.com/valetkey/valetkey/adapters/internal/exampletest"
)

func TestProgram(t *testing.T) { exampletest.HTTP(t) }
