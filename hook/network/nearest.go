package network

import "fmt"

// Nearest is the known word that was probably meant by word, or "" where none
// is near: at most a third of the letters wrong, a swap of neighbours being one
// fault. Of two equally near it takes the first.
func Nearest(word string, known []string) string {
	best, least := "", len(word)/3+1
	for _, k := range known {
		// The words are short; a hostile one is not, and is like nothing we know.
		if d := len(k) - len(word); d >= least || -d >= least {
			continue
		}
		if n := distance(word, k); n < least {
			best, least = k, n
		}
	}
	return best
}

// didYouMean is the end of an error that refuses a word.
func didYouMean(word string, known []string) string {
	if near := Nearest(word, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// distance is the optimal string alignment distance of a and b in bytes: the
// fewest insertions, deletions, changes and swaps of neighbours.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(last[j]+1, row[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
