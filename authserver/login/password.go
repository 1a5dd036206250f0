package login

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Parameters of new hashes: argon2id with 19 MiB, two passes, one lane. This is the second choice of RFC 9106, section 4 with
// less memory, as OWASP recommends for servers that hash many passwords at once.
const (
	hashMemory  = 19 << 10 // KiB
	hashTime    = 2
	hashThreads = 1
	saltLength  = 16 // bytes
	sumLength   = 32 // bytes
)

// Limits on the cost of imported hashes. Without them, one entry in a database could stall the server.
const (
	maxHashMemory = 256 << 10 // KiB
	maxHashTime   = 16
	maxThreads    = 16
	maxCost       = 15 // of bcrypt: some 2 s
)

const (
	minPassword = 8    // bytes, of a new password
	maxPassword = 1024 // bytes
)

// ValidPassword returns an error unless password is acceptable as a new password: 8 to 1,024 bytes.
func ValidPassword(password string) error {
	switch n := len(password); {
	case n < minPassword:
		return fmt.Errorf("the password is too short: at least %d bytes are needed", minPassword)
	case n > maxPassword:
		return fmt.Errorf("the password is too long: at most %d bytes are allowed", maxPassword)
	}
	return nil
}

// Hash returns the hash that a [Database] stores for a password: argon2id, in the PHC string format. The password is hashed byte
// by byte, without normalization. The error is that of [ValidPassword].
func Hash(password string) (string, error) {
	if err := ValidPassword(password); err != nil {
		return "", err
	}
	return newHash(password).String(), nil
}

// Verify reports whether text is a hash of the password, in one of the formats that a [Database] accepts. Any other text matches
// no password.
func Verify(text, password string) bool {
	h, err := parseHash(text)
	return err == nil && password != "" && len(password) <= maxPassword && h.matches(password)
}

// A hash is what a password is verified against: bcrypt if that field is set, otherwise argon2id.
type hash struct {
	memory, time uint32 // of argon2id, in KiB and passes
	threads      uint8
	salt, sum    []byte
	bcrypt       []byte
}

func newHash(password string) hash {
	h := hash{memory: hashMemory, time: hashTime, threads: hashThreads, salt: make([]byte, saltLength)}
	rand.Read(h.salt)
	h.sum = argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.threads, sumLength)
	return h
}

// unknownUser is the hash for an unknown name, so that verification takes as long as for a known one.
var unknownUser = hash{memory: hashMemory, time: hashTime, threads: hashThreads, salt: make([]byte, saltLength), sum: make([]byte, sumLength)}

func (h hash) matches(password string) bool {
	if h.bcrypt != nil {
		return bcrypt.CompareHashAndPassword(h.bcrypt, []byte(password)) == nil
	}
	sum := argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.threads, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}

// current reports whether h has the parameters of a new hash.
func (h hash) current() bool {
	return h.memory == hashMemory && h.time == hashTime && h.threads == hashThreads && len(h.salt) == saltLength && len(h.sum) == sumLength
}

var base64PHC = base64.RawStdEncoding.Strict()

// String returns h in the format that parseHash reads.
func (h hash) String() string {
	if h.bcrypt != nil {
		return string(h.bcrypt)
	}
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.threads,
		base64PHC.EncodeToString(h.salt), base64PHC.EncodeToString(h.sum))
}

// parseHash reads argon2id in the PHC string format, or bcrypt as crypt(3) writes it. The error does not quote text.
func parseHash(text string) (hash, error) {
	if strings.HasPrefix(text, "$2") {
		// A truncated hash would match no password, which would look like a wrong password.
		if cost, err := bcrypt.Cost([]byte(text)); err != nil || len(text) != 60 || cost > maxCost {
			return hash{}, fmt.Errorf("the hash is not bcrypt with a cost up to %d", maxCost)
		}
		return hash{bcrypt: []byte(text)}, nil
	}
	part := strings.Split(text, "$") // "", argon2id, v=19, m=19456,t=2,p=1, salt, sum
	if len(part) != 6 || part[1] != "argon2id" {
		return hash{}, errors.New("the hash is neither argon2id ($argon2id$v=19$...) nor bcrypt ($2b$...)")
	}
	var h hash
	_, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads)
	salt, err2 := base64PHC.DecodeString(part[4])
	sum, err3 := base64PHC.DecodeString(part[5])
	h.salt, h.sum = salt, sum
	switch {
	case errors.Join(err, err2, err3) != nil || h.String() != text: // a hash has one spelling
		return hash{}, errors.New("the hash is not argon2id in the PHC string format, version 19")
	case h.memory < 8*uint32(h.threads) || h.memory > maxHashMemory || h.time < 1 || h.time > maxHashTime || h.threads < 1 || h.threads > maxThreads:
		return hash{}, fmt.Errorf("the hash costs too much or too little: at most m=%d,t=%d,p=%d", maxHashMemory, maxHashTime, maxThreads)
	case len(salt) < 8 || len(salt) > 64 || len(sum) < 16 || len(sum) > 64:
		return hash{}, errors.New("the hash has a salt that is not 8 to 64 bytes, or a sum that is not 16 to 64")
	}
	return h, nil
}
