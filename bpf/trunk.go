package bpf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"
)

// Names of the pins in a trunk's directory; a link's is that of its way after
// linkPin.
const (
	endpointsPin = "endpoints"
	sharedPin    = "shared"
	addrsPin     = "addrs"
	hintsPin     = "hints"
	timesPin     = "times"
	historyPin   = "history"
	formerPin    = "former"
	vlansPin     = "vlans"
	devicePin    = "device"
	emitPin      = "emit"
	linkPin      = "link-"
)

// mapPins are those of the maps, and of the maps in wire.c.
var mapPins = []string{endpointsPin, sharedPin, addrsPin, hintsPin, timesPin, historyPin, formerPin, vlansPin, devicePin}

// A trunk is the open pins of one trunk.
type trunk struct {
	ifindex int
	dir     *os.File
	maps
}

// maps are the pinned maps of one trunk. Those that few need are opened when
// somebody does.
type maps struct {
	endpoints table[wireMacKey, wireEndpoint]
	shared    table[wireEndpointKey, wireEndpoint]
	addrs     table[wireAddressKey, wireAddress]
	hints     array[wireHint]
	times     array[wireClock]
	history   array[wirePlace]
	former    *ebpf.Map
	vlans     *ebpf.Map
	path      string // of the pins
}

// open opens a trunk's pins, nil if there are none.
func (r root) open(ifindex int) (_ *trunk, err error) {
	t := &trunk{ifindex: ifindex}
	t.path = r.trunkDir(ifindex)
	t.dir, err = openDir(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err = t.openMaps(); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (m *maps) openMaps() (err error) {
	if m.endpoints, err = openTable[wireMacKey, wireEndpoint](filepath.Join(m.path, endpointsPin)); err != nil {
		return err
	}
	if m.addrs, err = openTable[wireAddressKey, wireAddress](filepath.Join(m.path, addrsPin)); err != nil {
		return err
	}
	m.hints.path, m.times.path = filepath.Join(m.path, hintsPin), filepath.Join(m.path, timesPin)
	m.history.path = filepath.Join(m.path, historyPin)
	path := filepath.Join(m.path, vlansPin)
	if m.vlans, err = ebpf.LoadPinnedMap(path, nil); err != nil {
		return fmt.Errorf("open map %q: %w", path, err)
	}
	return checkMap(m.vlans, path, ebpf.Array, unsafe.Sizeof(uint32(0)), unsafe.Sizeof(wireVlan{}))
}

func (m *maps) openShared() (err error) {
	if m.shared.Map == nil {
		m.shared, err = openTable[wireEndpointKey, wireEndpoint](filepath.Join(m.path, sharedPin))
	}
	return err
}

func (m *maps) openFormer() (err error) {
	if m.former == nil {
		path := filepath.Join(m.path, formerPin)
		if m.former, err = ebpf.LoadPinnedMap(path, nil); err != nil {
			return fmt.Errorf("open map %q: %w", path, err)
		}
		err = checkMap(m.former, path, ebpf.LRUHash, unsafe.Sizeof(wireMacKey{}), 8)
	}
	return err
}

func (t *trunk) close() {
	for _, c := range []io.Closer{t.dir, t.endpoints, t.shared, t.addrs, t.hints, t.times, t.history, t.former, t.vlans} {
		c.Close() // nothing was written that could be lost
	}
}

// current reports whether the pins are still those that are open.
func (t *trunk) current() bool { return isAt(t.dir, t.path) }

// exists reports whether there is anything at a path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// alive reports whether the device that pins were made for still exists.
func (p pins) alive() (bool, error) {
	path := filepath.Join(p.path, devicePin)
	m, err := ebpf.LoadPinnedMap(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open map %q: %w", path, plain(err))
	}
	defer m.Close()
	if err := checkMap(m, path, ebpf.DevMap, 4, 4); err != nil {
		return false, err
	}
	var slot, ifindex uint32
	err = m.Lookup(unsafe.Pointer(&slot), unsafe.Pointer(&ifindex))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read map %q: %w", path, err)
	}
	return int(ifindex) == p.ifindex, nil
}
