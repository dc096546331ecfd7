# SPDX-License-Identifier: GPL-3.0-or-later
# Hands the `config` table of a package to its module, and to every module that one imports, as the argument `glixConfig`.
#
# `_module.args.glixConfig` cannot do this: it is one value for a whole evaluation, and two packages would collide.
# So the module is rewritten, whatever its shape: paths are imported, `imports` are walked, and functions are called with
# one more argument, which is hidden from the module system.
{ lib }: glixConfig:
let
  wrap = module:
    if builtins.isPath module || builtins.isString module then wrapFile module
    else if lib.isFunction module then wrapFunction module
    else wrapSet module;

  # The file keeps its name in error messages, and its key, by which the module system imports a file once however many
  # modules ask for it. A file that takes glixConfig is imported once for each table instead.
  wrapFile = file:
    let
      module = import file;
      name = toString file;
      takesConfig = lib.isFunction module && lib.functionArgs module ? glixConfig;
    in
    {
      _file = name;
      key = if takesConfig then "${name}#${builtins.hashString "sha256" (builtins.toJSON glixConfig)}" else name;
      imports = [ (wrap module) ];
    };

  wrapFunction = function: lib.setFunctionArgs
    (args: wrapSet (function (args // { inherit glixConfig; })))
    (removeAttrs (lib.functionArgs function) [ "glixConfig" ]);

  wrapSet = module:
    if builtins.isAttrs module && module ? imports && (module._type or "module") == "module"
    then module // { imports = map wrap module.imports; }
    else module;
in
wrap
