package diskstore

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked reports a directory that another store, here or in another process,
// has open.
var ErrLocked = errors.New("store directory is in use")

const (
	lockName       = "LOCK"
	identityName   = "IDENTITY"
	identityPrefix = "cairn-store-1 "
	idSize         = 16
)

// lockDir takes the directory for this process. Closing the file lets it go, and
// so does the end of the process, however it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
		text, _ := io.ReadAll(io.LimitReader(f, 32))
		if pid, perr := strconv.Atoi(strings.TrimSpace(string(text))); perr == nil {
			err = fmt.Errorf("%w by process %d: stop it or choose another directory", ErrLocked, pid)
		}
	}
	if err == nil {
		// Only a courtesy to whoever finds the directory locked.
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		}
		if errors.Is(noSpace(err), unix.ENOSPC) {
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// identity reads the store's id, or makes one for a new store.
func identity(fs filesystem, names map[string]bool) (string, error) {
	if names[identityName] {
		return readIdentity(fs)
	}
	var id [idSize]byte
	rand.Read(id[:])
	text := hex.EncodeToString(id[:])
	// A rename makes it appear whole or not at all.
	const draft = identityName + ".new"
	if names[draft] {
		if err := fs.Remove(draft); err != nil {
			return "", err
		}
	}
	f, err := fs.Create(draft)
	if err != nil {
		return "", noSpace(err)
	}
	err = writeFull(f, [][]byte{[]byte(identityPrefix + text + "\n")}, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	if err := fs.Rename(draft, identityName); err != nil {
		return "", err
	}
	return text, fs.SyncDir()
}

func readIdentity(fs filesystem) (string, error) {
	f, err := fs.Open(identityName)
	if err != nil {
		return "", err
	}
	defer f.Close()
	p := make([]byte, len(identityPrefix)+2*idSize)
	if err := readFull(f, [][]byte{p}, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	text, ok := strings.CutPrefix(string(p), identityPrefix)
	if _, err := hex.DecodeString(text); !ok || err != nil {
		return "", fmt.Errorf("the file %s is damaged: delete it to give the store a new identity", identityName)
	}
	return text, nil
}
