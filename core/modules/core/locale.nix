# SPDX-License-Identifier: GPL-3.0-or-later
{ lib, ... }:
{
  time.timeZone = lib.mkDefault "UTC";
  i18n.defaultLocale = lib.mkDefault "en_US.UTF-8";
  console.keyMap = lib.mkDefault "us";
}
