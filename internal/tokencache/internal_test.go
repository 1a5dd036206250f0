package tokencache

import (
	"testing"
	"unsafe"

	"github.com/valetkey/valetkey"
)

func TestSize(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the classes are those of 64 bits")
	}
	if size := unsafe.Sizeof(valetkey.Token{}); size > 416 {
		t.Errorf("a Token is %d bytes, more than its size class", size)
	}
	if size := unsafe.Sizeof(record{}); size > 176 {
		t.Errorf("a record is %d bytes, more than its size class", size)
	}
}
