package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
)

const (
	keyFileMode = 0o600
	othersMode  = 0o037 // what the mode of such a file may not have
	secretBytes = 32
)

// loadIdentity returns the libp2p private key in file, making an Ed25519 one
// if there is none: no init step is needed. The file holds the key in libp2p's
// protobuf form.
func loadIdentity(file string) (crypto.PrivKey, error) {
	raw, err := readOrCreate(file, func() ([]byte, error) {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			return nil, err
		}
		return crypto.MarshalPrivateKey(key)
	})
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("identity key %s: %w; restore it from a backup, or move it away for a new identity", file, err)
	}
	return key, nil
}

// loadSecret returns the pool's index secret, making one if the file is absent.
func loadSecret(file string) ([]byte, error) {
	raw, err := readOrCreate(file, func() ([]byte, error) {
		b := make([]byte, secretBytes)
		_, err := rand.Read(b)
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flagIndexSecret, err)
	}
	if len(raw) != secretBytes {
		return nil, misused("--%s %s: holds %d bytes, want %d; use the file another node of the pool made", flagIndexSecret, file, len(raw), secretBytes)
	}
	return raw, nil
}

// readOrCreate reads file, or writes what produce returns to it with mode 0600,
// complete or not at all. It refuses a file others can read, but for its group, which
// is how systems hand out files they own: /etc, and secrets on Kubernetes.
func readOrCreate(file string, produce func() ([]byte, error)) ([]byte, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return create(file, produce)
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&othersMode != 0 {
		return nil, fmt.Errorf("%s is open to others (mode %o): chmod 600 it, or 640", file, info.Mode().Perm())
	}
	return os.ReadFile(file)
}

func create(file string, produce func() ([]byte, error)) ([]byte, error) {
	raw, err := produce()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	if err := errors.Join(tmp.Chmod(keyFileMode), write(tmp, raw), tmp.Sync(), tmp.Close()); err != nil {
		return nil, err
	}
	// Link, not rename: of two processes that start at once, one file wins.
	if err := os.Link(tmp.Name(), file); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return os.ReadFile(file)
		}
		return nil, err
	}
	return raw, nil
}

func write(f *os.File, b []byte) error {
	_, err := f.Write(b)
	return err
}
