package attach

import "github.com/lanyard-net/lanyard/hook/link"

// setSysctls sets what the container requests for its interface. It must run inside the namespace.
func (t *attempt) setSysctls() error {
	for _, s := range t.rec.Sysctls {
		if err := link.SetSysctl(t.rec.Interface, s.Key, s.Value); err != nil {
			return err
		}
	}
	return nil
}
