package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Marks are empty directories among a trunk's pins: a bpffs takes no other files.

// netnsMark returns the name of the mark that identifies the network namespace of the calling
// thread.
func netnsMark() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return "", fmt.Errorf("find the network namespace: %w", err)
	}
	return fmt.Sprintf("netns-%d", st.Ino), nil
}

// MarkNetns records that the pins in dir belong to a trunk in the network namespace of the calling
// thread: an ifindex is valid in one namespace only, and several namespaces may see the same root.
func MarkNetns(dir string) error {
	mark, err := netnsMark()
	if err != nil {
		return err
	}
	return os.Mkdir(filepath.Join(dir, mark), 0o700)
}

// CheckNetns returns an error if the pins in dir belong to a trunk in another network namespace: the
// device with that ifindex in this one is a different device.
func CheckNetns(dir string) error {
	mark, err := netnsMark()
	if err == nil && !Exists(filepath.Join(dir, mark)) {
		err = fmt.Errorf("%q belongs to a trunk of another network namespace: use another root in this one", dir)
	}
	return err
}

func editionMark(dir string, n int) string {
	return filepath.Join(dir, fmt.Sprintf("edition-%d", n))
}

// MarkEdition records that the programs in dir are of edition n.
func MarkEdition(dir string, n int) error { return os.Mkdir(editionMark(dir, n), 0o700) }

// UnmarkEdition removes the mark of edition n. It returns nil if the mark does not exist.
func UnmarkEdition(dir string, n int) error {
	if err := os.Remove(editionMark(dir, n)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// HasEdition reports whether the programs in dir are of edition n. It costs less than Edition.
func HasEdition(dir string, n int) bool { return Exists(editionMark(dir, n)) }

// Edition returns the edition of the programs in dir, 0 if it is not known.
func Edition(dir string) (n int, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		var found int
		if _, err := fmt.Sscanf(e.Name(), "edition-%d", &found); err == nil {
			n = max(n, found)
		}
	}
	return n, err
}

// Exists reports whether a file exists at a path.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
