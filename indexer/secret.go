package indexer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// fingerprintFile keeps which pool's index secret a data directory belongs to.
const fingerprintFile = "index-secret.sha256"

// ErrOtherSecret: the data directory was made with another index secret.
var ErrOtherSecret = errors.New("data directory belongs to another index secret")

func storeDir(dataDir string) string { return filepath.Join(dataDir, "store") }

// bindSecret ties a data directory to the pool's secret on first use and
// refuses another one later. Only a hash of it is written.
func bindSecret(dataDir string, secret []byte) error {
	file := filepath.Join(dataDir, fingerprintFile)
	have, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(secret) == 0 {
		if err == nil {
			return fmt.Errorf("%w: %s was made with --index-secret; name the same file", ErrOtherSecret, dataDir)
		}
		return nil
	}
	sum := sha256.Sum256(append([]byte("signpost index secret fingerprint\x00"), secret...))
	want := []byte(hex.EncodeToString(sum[:]) + "\n")
	if err == nil {
		if !bytes.Equal(have, want) {
			return fmt.Errorf("%w: %s; give the pool's --index-secret file", ErrOtherSecret, dataDir)
		}
		return nil
	}
	return os.WriteFile(file, want, 0o600)
}
