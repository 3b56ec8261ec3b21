// Package matrix proves that the verdict is never wrong: it breaks a LAN of
// namespaces in every way that it knows, for real, attaches a container each time,
// and compares code and evidence with what was broken. All of it is tests; they
// need the virtual machine. "make matrix" runs the whole and writes a report,
// "make test" a part that has every code for both families.
package matrix
