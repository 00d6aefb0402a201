package keyset

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
)

// Secret keys the hashes of a pool's multihashes.
type Secret [16]byte

// SecretOf is made of the pool's index secret.
func SecretOf(secret []byte) (key Secret) {
	sum := sha256.Sum256(append([]byte("signpost index hash\x00"), secret...))
	copy(key[:], sum[:])
	return key
}

// Key is the key of a multihash.
func (s *Secret) Key(mh []byte) uint64 {
	a, _ := Hash128(binary.LittleEndian.Uint64(s[:8]), binary.LittleEndian.Uint64(s[8:]), mh)
	return bits.ReverseBytes64(a)
}

// Token shows that somebody has the pool's index secret, and does not tell it.
func Token(secret []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("signpost key set"))
	return hex.EncodeToString(mac.Sum(nil))
}
