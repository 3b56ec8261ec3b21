package network

import "fmt"

// Nearest returns the known word that is most similar to word, or "" if none differs in at
// most a third of the letters. A swap of adjacent letters counts as one difference. Of two
// equally similar words it returns the first.
func Nearest(word string, known []string) string {
	best, least := "", len(word)/3+1
	for _, k := range known {
		// The known words are short. This skips a long, hostile word at once.
		if d := len(k) - len(word); d >= least || -d >= least {
			continue
		}
		if n := distance(word, k); n < least {
			best, least = k, n
		}
	}
	return best
}

// didYouMean returns the end of an error about an unknown word.
func didYouMean(word string, known []string) string {
	if near := Nearest(word, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// distance returns the optimal string alignment distance of a and b in bytes: the minimum
// number of insertions, deletions, changes and swaps of adjacent bytes.
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
