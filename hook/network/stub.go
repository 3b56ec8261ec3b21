package network

// ErrExist is returned by Create when a network of that name is there already.
var ErrExist error

// ErrNotExist is returned by Load and Remove when no network of that name is defined.
var ErrNotExist error

// ValidName says why name cannot be a network's, or nil. It is asked before any
// path is built from a name: names come from annotations, which are hostile.
func ValidName(name string) error { panic("unfinished") }

// Validate says what is wrong with the definition as "field: reason", or nil.
func (d *Definition) Validate() error { panic("unfinished") }

// Conflicts says why d cannot live beside the other definitions, or nil: one
// network per parent, no overlapping subnets on one parent. A definition of the
// same name is d's former self and is passed over.
func (d *Definition) Conflicts(others []*Definition) error { panic("unfinished") }

// Load reads and validates the definition of one network.
func Load(dir, name string) (*Definition, error) { panic("unfinished") }

// LoadAll reads every definition in dir, sorted by name. A broken file stops
// that network alone: it is one error, naming the file, in broken. A directory
// that does not exist holds no networks.
func LoadAll(dir string) (good []*Definition, broken []error) { panic("unfinished") }

// Create validates d and writes it to dir, which is made if need be. A network
// of that name that is there already is left as it is: ErrExist.
func (d *Definition) Create(dir string) error { panic("unfinished") }

// Save validates d and writes it to dir, in place of what was there.
func (d *Definition) Save(dir string) error { panic("unfinished") }

// Remove deletes the definition of one network; ErrNotExist where there is none.
func Remove(dir, name string) error { panic("unfinished") }

// Lock serialises commands that look at all definitions and then write one. It
// waits for whoever holds it.
func Lock(dir string) (unlock func(), err error) { panic("unfinished") }

// Nearest is the known word that was probably meant by word, or "" where none
// is near. Of two equally near it takes the first.
func Nearest(word string, known []string) string { panic("unfinished") }
