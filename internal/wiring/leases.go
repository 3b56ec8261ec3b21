package wiring

import (
	"errors"
	"fmt"
	"sync"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/service/wire"
	"github.com/lanyard-net/lanyard/ipam"
)

// clients open the stores that hosts share, see RegisterLeases.
var clients = map[network.LeaseStore]func(Paths) (ipam.Shared, error){}

// RegisterLeases makes Open offer a kind of store that hosts share. Only "lanyard", which is the
// service, registers one, before it calls Open: all other programs start without its client.
func RegisterLeases(kind network.LeaseStore, open func(Paths) (ipam.Shared, error)) {
	clients[kind] = open
}

// sharedStores opens each kind of store at the first call for it. It is safe for concurrent use.
type sharedStores struct {
	paths Paths

	mu     sync.Mutex
	opened map[network.LeaseStore]ipam.Shared
}

func (s *sharedStores) open(kind network.LeaseStore) (ipam.Shared, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if store := s.opened[kind]; store != nil {
		return store, nil
	}
	client := clients[kind]
	if client == nil {
		return nil, s.noClient()
	}
	store, err := client(s.paths)
	if err == nil {
		s.opened[kind] = store
	}
	return store, err
}

// noClient returns what to do where this program links no client. If the service listens, it has left the request to
// this program.
func (s *sharedStores) noClient() error {
	if listens(s.paths.Socket) {
		return fmt.Errorf("%w, and takes requests of up to %d KiB: shorten the request, or see \"journalctl -u lanyard\"",
			parts.ErrNoClient, wire.MaxMessage>>10)
	}
	return fmt.Errorf("%w: run \"systemctl enable --now lanyard.socket\"", parts.ErrNoClient)
}

// close closes the stores that were opened.
func (s *sharedStores) close() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, store := range s.opened {
		err = errors.Join(err, store.Close())
	}
	clear(s.opened)
	return err
}
