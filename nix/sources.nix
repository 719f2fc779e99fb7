# What the programs are built from. A document is no part of it, so that an edit
# of one rebuilds nothing; tests compare documents with what they are about.
{
  lib,
  documents ? false,
}:
let
  inherit (lib) fileset;
  code = fileset.unions [
    ../go.mod
    ../go.sum
    ../agent
    ../api
    ../cli
    ../internal
    ../packaging
    ../tests
  ];
  markdown = fileset.fileFilter (file: file.hasExt "md") ../.;
in
fileset.toSource {
  root = ../.;
  fileset =
    if documents then
      fileset.unions [
        code
        markdown
        ../examples
      ]
    else
      fileset.difference code markdown;
}
