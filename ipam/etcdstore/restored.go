package etcdstore

import (
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// history is what this process has seen of the cluster. Revisions only grow, so that a lower one, or
// another cluster id, means that the cluster has lost what was written last: it was restored from a
// backup, or is another one. Addresses that hosts use may look free in it.
type history struct {
	noticed chan struct{} // wakes Keep

	mu       sync.Mutex
	cluster  uint64 // 0: nothing seen yet
	revision int64
	lost     string    // what was noticed last
	until    time.Time // claims wait: other hosts claim again what they use
}

func newHistory() *history { return &history{noticed: make(chan struct{}, 1)} }

// now returns the highest revision seen, to compare the answer to a later request with.
func (h *history) now() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.revision
}

// see adds an answer to a request that was sent when the highest revision was before. If it is of a
// cluster that has lost writes, claims wait for d.
func (h *history) see(answer *pb.ResponseHeader, before int64, d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.cluster != 0 && h.cluster != answer.ClusterId:
		h.lost = fmt.Sprintf("is another cluster than before: %x after %x", answer.ClusterId, h.cluster)
	case answer.Revision < before && before == h.revision: // not an answer that was on its way at the last notice
		h.lost = fmt.Sprintf("was restored from a backup: it has revision %d after %d", answer.Revision, before)
	default:
		h.cluster, h.revision = answer.ClusterId, max(h.revision, answer.Revision)
		return
	}
	h.cluster, h.revision, h.until = answer.ClusterId, answer.Revision, time.Now().Add(d)
	select {
	case h.noticed <- struct{}{}:
	default:
	}
}

// wait returns what was noticed, and for how long claims still wait; 0 if they do not.
func (h *history) wait() (lost string, d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lost, max(0, time.Until(h.until))
}

// checkHistory returns an error while claims wait. The Store for renew does not wait.
func (s *Store) checkHistory() error {
	lost, d := s.history.wait()
	if d == 0 || s.renewal {
		return nil
	}
	return &ownError{fmt.Errorf("etcd %s: no address is given for another %s, until all hosts have claimed what they use",
		lost, d.Round(time.Second))}
}

// commit sends a transaction, and compares the answer with what was seen before.
func (s *Store) commit(txn clientv3.Txn) (*clientv3.TxnResponse, error) {
	before := s.history.now()
	resp, err := txn.Commit()
	if err == nil {
		s.history.see(resp.Header, before, s.config.ttl())
	}
	return resp, err
}

// forRenewal returns the store for a regular renewal: it may claim while other claims wait, and does not
// wait for a session, which only its caller begins.
func (s *Store) forRenewal() *Store {
	again := *s
	again.renewal = true
	return &again
}
