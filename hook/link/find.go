package link

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// FindNetns finds a namespace that was seen before: by the processes in it, or
// by a path that it is pinned at. It is nil where nobody holds it any more.
// Inode numbers are recycled, so where the kernel has cookies the cookie must
// match as well. The caller checks that the boot is the same.
func (h *Host) FindNetns(inode, cookie uint64) (*Netns, error) {
	return h.search(
		func(ino uint64) bool { return ino == inode },
		func(n *Netns) bool { return n.Cookie == cookie },
	)
}

// EachNetns visits every namespace that lives but the host's own, each once: for
// when all else is lost. What visit is given is closed after it.
func (h *Host) EachNetns(visit func(*Netns)) error {
	return h.EachNetnsOf(func(uint64) bool { return true }, visit)
}

// EachNetnsOf visits those whose inode is wanted, in one pass over all processes and
// pins: to open a namespace costs much more than to see its inode.
func (h *Host) EachNetnsOf(wanted func(inode uint64) bool, visit func(*Netns)) error {
	_, err := h.search(
		wanted,
		func(n *Netns) bool {
			visit(n)
			return false
		},
	)
	return err
}

// search opens the namespaces whose inode is wanted, each once, until one
// matches; nil if none does. It is the caller's to close.
func (h *Host) search(wanted func(inode uint64) bool, matches func(*Netns) bool) (*Netns, error) {
	// Pins first: they are few, and where a namespace outlives its container it
	// mostly has one.
	pinned, err := pinnedNetns()
	if err != nil {
		return nil, fmt.Errorf("list pinned network namespaces: %w", err)
	}
	held, err := heldNetns()
	if err != nil {
		return nil, err
	}
	tried := map[uint64]bool{}
	for _, path := range append(pinned, held...) {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || tried[st.Ino] || !wanted(st.Ino) {
			continue
		}
		tried[st.Ino] = true
		n, err := h.openNetns(path)
		if isShort(err) {
			return nil, fmt.Errorf("open network namespace %q: %w", path, err)
		}
		if err != nil {
			continue // the host's own, or gone since it was listed
		}
		if matches(n) {
			return n, nil
		}
		n.Close()
	}
	return nil, nil
}

// isShort says whether an error says nothing of what was asked for: this process, or
// the machine, has no room to look.
func isShort(err error) bool {
	return slices.ContainsFunc([]error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EAGAIN}, func(e error) bool { return errors.Is(err, e) })
}

// heldNetns gives the path of each process's namespace. Filepath.Glob would look
// at each four times.
func heldNetns() (paths []string, err error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, name := range names {
		if name[0] >= '0' && name[0] <= '9' {
			paths = append(paths, "/proc/"+name+"/ns/net")
		}
	}
	return paths, nil
}

// pinnedNetns lists the paths in this mount namespace that a network namespace
// is bound to: their root in mountinfo is "net:[INODE]" (fs/nsfs.c).
func pinnedNetns() (paths []string, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20) // an overlay of many layers is one long line
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[3], "net:[") {
			paths = append(paths, unescape(fields[4]))
		}
	}
	return paths, lines.Err()
}

// unescape undoes what the kernel does to paths in mountinfo (seq_path: space,
// tab, newline and backslash as octal).
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace
