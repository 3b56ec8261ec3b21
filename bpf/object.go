package bpf

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// load loads the maps and programs of an object into the kernel; if only is set, that program alone,
// which must use no map. The maps of pinned take the place of new ones; the caller closes them.
func load(
	spec func() (*ebpf.CollectionSpec, error), pinned map[string]*ebpf.Map, only string,
) (*ebpf.Collection, error) {
	s, err := spec()
	if err != nil {
		return nil, err
	}
	if only != "" {
		s = &ebpf.CollectionSpec{
			Programs:  map[string]*ebpf.ProgramSpec{only: s.Programs[only]},
			Types:     s.Types,
			ByteOrder: s.ByteOrder,
		}
	}
	// Below 5.11, the kernel counts maps against RLIMIT_MEMLOCK.
	err = rlimit.RemoveMemlock()
	var c *ebpf.Collection
	if err == nil {
		c, err = ebpf.NewCollectionWithOptions(s, ebpf.CollectionOptions{MapReplacements: pinned})
	}
	if err != nil {
		return nil, fmt.Errorf("load tc program: %w", explainErrno(err))
	}
	return c, nil
}

// pinAll pins maps and programs of a collection in a directory, by their names.
func pinAll(c *ebpf.Collection, dir string, names []string) error {
	for _, name := range names {
		path := filepath.Join(dir, name)
		var err error
		if p := c.Programs[name]; p != nil {
			err = p.Pin(path)
		} else {
			err = c.Maps[name].Pin(path)
		}
		if err != nil {
			return fmt.Errorf("pin %q: %w", path, explainErrno(err))
		}
	}
	return nil
}

// openProgram opens a pinned program.
func openProgram(path string) (*ebpf.Program, error) {
	p, err := ebpf.LoadPinnedProgram(path, nil)
	if err != nil {
		return nil, fmt.Errorf("open program %q: %w", path, explainErrno(err))
	}
	return p, nil
}

// pinnedID returns the id of a pinned program.
func pinnedID(path string) (ebpf.ProgramID, error) {
	p, err := openProgram(path)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return 0, fmt.Errorf("ask for program %q: %w", path, err)
	}
	id, _ := info.ID()
	return id, nil
}

// programName returns the quoted name of a program with an id.
func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return `""` // deleted in the meantime
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return `""`
	}
	return fmt.Sprintf("%q", info.Name)
}

// explainErrno adds the missing capability or kernel option to an error of bpf(2).
func explainErrno(err error) error {
	var refused *ebpf.VerifierError
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: CAP_BPF and CAP_NET_ADMIN are needed, CAP_SYS_ADMIN below Linux 5.8", unix.EPERM)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: the kernel has no BPF (CONFIG_BPF_SYSCALL)", unix.ENOSYS)
	case errors.As(err, &refused):
		return fmt.Errorf("the kernel's verifier rejects the program, please report this: %w", err)
	}
	return err
}
