//go:build tools

// Package tools makes `go mod tidy` keep the command that `make chart` builds.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
